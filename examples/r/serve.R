# A model of R behind the Open Inference Protocol: has a car a manual gearbox, by its power and weight?
# The model is fitted here, since it takes a millisecond; a larger one would be read: model <- readRDS("model.rds").

library(plumber)

name <- Sys.getenv("INSTAR_MODEL", "mileage")
port <- as.integer(Sys.getenv("INSTAR_PORT", "8080"))
columns <- c("hp", "wt")
model <- glm(am ~ hp + wt, data = mtcars, family = binomial)

# An error that the caller made; everything else that stops is ours, and answered with 500.
refuse <- function(message) stop(structure(class = c("refused", "error", "condition"), list(message = message, call = NULL)))

read_columns <- function(asked) {
  if (!is.list(asked) || !is.list(asked$inputs) || length(asked$inputs) == 0) refuse("the body has no inputs")
  given <- list()
  for (input in asked$inputs) {
    if (!is.list(input) || !is.character(input$name)) refuse("an input has no name")
    if (!(input$name %in% columns)) refuse(paste("there is no input", input$name))
    values <- unlist(input$data)
    if (!is.numeric(values)) refuse(paste("the data of input", input$name, "are no numbers"))
    given[[input$name]] <- values
  }
  absent <- setdiff(columns, names(given))
  if (length(absent) > 0) refuse(paste("input", absent[1], "is missing"))
  if (length(unique(lengths(given))) != 1) refuse("the inputs have different numbers of rows")
  as.data.frame(given)
}

infer <- function(req, res) {
  asked <- tryCatch(
    jsonlite::fromJSON(req$postBody, simplifyVector = FALSE),
    error = function(problem) refuse("the body is no JSON")
  )
  score <- unname(predict(model, read_columns(asked), type = "response"))
  answer <- list(model_name = name, outputs = list(
    list(name = "score", datatype = "FP64", shape = list(length(score)), data = as.list(score))
  ))
  if (!is.null(asked$id)) answer$id <- asked$id
  answer
}

# Bodies are left as they are: `infer` reads them, so that what is no JSON is answered with 400.
register_parser("untouched", function(...) function(value, ...) NULL, regex = ".*", verbose = FALSE)
json <- serializer_unboxed_json(digits = NA)   # all digits of a double
here <- paste0("/v2/models/", name)
tensor <- function(name) list(name = name, datatype = "FP64", shape = list(-1))

pr() |>
  pr_set_parsers("untouched") |>
  pr_get("/v2/health/live", function() list(live = TRUE), serializer = json) |>
  pr_get("/v2/health/ready", function() list(ready = TRUE), serializer = json) |>
  pr_get(paste0(here, "/ready"), function() list(name = name, ready = TRUE), serializer = json) |>
  pr_get(here, function() list(
    name = name, platform = "r", inputs = lapply(columns, tensor), outputs = list(tensor("score"))
  ), serializer = json) |>
  pr_post(paste0(here, "/infer"), infer, serializer = json) |>
  pr_set_error(function(req, res, err) {
    res$status <- if (inherits(err, "refused")) 400L else 500L
    list(error = conditionMessage(err))
  }) |>
  pr_set_docs(FALSE) |>
  pr_run(host = "127.0.0.1", port = port, quiet = TRUE)

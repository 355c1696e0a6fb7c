"""The forms in which callers may ask and be answered, each read into one request and written from one answer, at a call.

`inference` is the Open Inference Protocol's own JSON; `binary` its extension for tensors; `records`, `invocations` and
`csv_rows` are for people and for MLflow's clients; `arrow` for many rows. `reading` knows them by number.
"""

"""The rim: command line, HTTP API, console and SDK translate and delegate, one file a stage."""

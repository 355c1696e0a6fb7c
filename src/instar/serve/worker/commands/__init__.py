"""Models in programs of other languages, asked by the Open Inference Protocol over HTTP on loopback, while a server is up."""

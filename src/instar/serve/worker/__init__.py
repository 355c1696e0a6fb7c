"""Workers: processes that hold models and answer the calls that gateways hand them."""

"""What answers an endpoint: policies as data, their record, and the route snapshot that gateways answer from."""

"""The parameters: a typed section a stage, and `conf/` composed into `params.yaml`."""

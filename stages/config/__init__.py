"""The parameters: one typed section per stage, and `conf/` composed into `params.yaml`."""

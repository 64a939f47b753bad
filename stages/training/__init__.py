"""Networks, augmentations, features, fitting, validation, calibration, export, quantisation, model selection."""

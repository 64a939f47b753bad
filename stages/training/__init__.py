"""Networks, features, fitting, calibration, export, quantisation."""

"""Small networks that train in seconds, as lines of a preset."""

NETWORKS = """
[system.moe]
sides = [28, 14]
channels = [8, 8, 8, 8]
hidden = 8
attention_hidden = 4
[system.plain]
sides = [28]
channels = [8, 8, 8, 8]
hidden = 8
attention_hidden = 4"""

# one round of two hospitals, and a calibration of few examples; follows a preset's other tables
TWO_HOSPITALS = """
[federated]
num_rounds = 1
local_epochs = 1
[federated.partition]
num_clients = 2
min_scans = 2
[calibrate]
hidden_scans = 1
hidden_steps = 2
fit_scans = 6
val_scans = 6
eps = [0.015]
"""

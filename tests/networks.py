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

"""How good, how fast, how much memory: metrics, benchmarks, and the machine they ran on."""

from everview.evaluation import metrics as metrics

"""The diffusion prior: schedule, network, solvers and the one sampling loop."""

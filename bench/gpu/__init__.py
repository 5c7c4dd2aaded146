"""What is measured on GPUs; `bench.gpu`, `bench.gpu_limits` and `bench.gpu_scaling` run it."""

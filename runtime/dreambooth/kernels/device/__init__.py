"""What runs on the GPU, in Triton; imported only where `check_available` gives no reason not to."""

"""Kernels for what torch alone does in too many passes over memory, and where they are put in.

Every kernel stands beside the torch operations it replaces; these are the reference in tests and
what runs where a kernel can't (no GPU, no Triton). Nothing here compiles a model: a kernel is
compiled once per type and shape class, in well under a second, and all can be captured in a CUDA
graph.
"""

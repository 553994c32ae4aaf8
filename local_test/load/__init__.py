"""The load bench: requests, latency, CPU and memory of `serve`, beside a bare echo and servers that others write."""

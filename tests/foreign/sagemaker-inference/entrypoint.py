"""Start Multi Model Server through AWS's toolkit for `serve`, as AWS's sample does; run any other command as it is."""

import subprocess
import sys

from sagemaker_inference import model_server

if __name__ == "__main__":
    if sys.argv[1] != "serve":
        sys.exit(subprocess.call(sys.argv[1:]))
    model_server.start_model_server(handler_service="/opt/program/handler.py:handle")

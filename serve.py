"""Serves SavedModels over HTTP by TensorFlow Serving's REST interface.

    python serve.py --models=nsmc:served/nsmc
    curl -d '{"inputs": {"texts": ["정말 재미있다"]}}' http://127.0.0.1:8501/v1/models/nsmc:predict

With the environment variable SERVE_API_KEY set, clients have to send it: X-API-Key: KEY.
"""

from model import command, hparams
from serving.server import ServerConfig, serve


def main() -> None:
    serve(ServerConfig.create(hparams.collect(ServerConfig, None)))


if __name__ == "__main__":
    hparams.define_flags(ServerConfig)
    command.run(main)

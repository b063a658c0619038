"""Serves SavedModels over HTTP by TensorFlow Serving's REST interface.

    python serve.py --models=nsmc:served/nsmc
    curl -d '{"inputs": {"texts": ["정말 재미있다"]}}' http://127.0.0.1:8501/v1/models/nsmc:predict

With the environment variable SERVE_API_KEY set, clients have to send it: X-API-Key: KEY.
"""

from model import command, hparams
from model.command import UserError
from server.server_config import ServerConfig


def main() -> None:
    config = ServerConfig.create(hparams.collect(ServerConfig, None))
    try:
        from server.app import serve
    except ImportError as error:
        raise UserError(f"serve.py needs `pip install '.[serve]'` ({error})") from error
    serve(config)


if __name__ == "__main__":
    hparams.define_flags(ServerConfig)
    command.run(main)

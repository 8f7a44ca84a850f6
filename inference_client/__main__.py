"""Lets `python -m inference_client` stand for `infer`."""

from inference_client.cli import main

if __name__ == "__main__":
    main()

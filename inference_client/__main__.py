"""`python -m inference_client` is `infer`."""

from inference_client.cli import main

if __name__ == "__main__":
    main()

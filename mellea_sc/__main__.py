"""``python -m mellea_sc``: the command ``mellea-sc``."""

from mellea_sc.cli import main

if __name__ == "__main__":
    main()

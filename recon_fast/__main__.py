"""`python -m recon_fast` is `recon-fast`."""

from recon_fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

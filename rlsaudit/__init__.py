"""rlsaudit: audit PostgreSQL Row-Level Security and find cross-tenant leaks."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout, checks/ and reports/ stand beside the package and not inside it (an installed wheel has them inside).
if not (Path(__file__).parent / "checks").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))

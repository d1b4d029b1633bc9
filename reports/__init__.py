"""One file per output format; the registry in ``rlsaudit.report`` finds them all."""

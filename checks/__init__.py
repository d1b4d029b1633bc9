"""One file per check; the registry in ``rlsaudit.check`` finds them all."""

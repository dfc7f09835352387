"""Several processes: who this one is, how they agree, how weights are sharded and gathered."""

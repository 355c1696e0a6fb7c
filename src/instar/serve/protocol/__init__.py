"""How calls are written and read: the Open Inference Protocol V2 and its neighbours, and the wire to workers."""

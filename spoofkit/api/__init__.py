"""What Python callers use; `spoofkit` itself offers it by name, without importing it before."""

"""What the machine is: its GPUs, its cores."""

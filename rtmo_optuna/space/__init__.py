"""What can be set and searched: knobs, objectives, study definitions, config.yaml."""

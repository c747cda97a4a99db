"""Pure decisions of a search: functions of what was measured."""

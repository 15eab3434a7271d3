"""Open vSwitch: its daemons, its database and its bridge. Flows are the engines' business."""

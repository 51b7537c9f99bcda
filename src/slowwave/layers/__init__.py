"""Modules that hold weights and call the ops: state goes in, state comes out."""

"""The REST door: handlers as plain functions over values, and the Quart application that routes to them."""

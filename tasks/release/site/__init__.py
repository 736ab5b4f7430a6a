"""The pages of `tunegate ui`: templates, and the small server that shows them."""

"""A latent space looked at in the browser: decoder and generator side by side for one latent."""

"""The demo: drawn images, a backdoored classifier that ships with it, and the real `purify` between them."""

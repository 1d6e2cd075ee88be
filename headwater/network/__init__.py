"""Network access: chat servers, the Hugging Face hub, and the local page server."""

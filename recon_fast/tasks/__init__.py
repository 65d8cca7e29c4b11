"""What a pretrained encoder is judged by."""

"""What several test modules share. It holds no tests."""

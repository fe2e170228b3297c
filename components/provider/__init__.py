"""The provider `tidemill-native`."""

"""The Pulumi provider `tidemill-native`."""

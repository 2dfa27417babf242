"""The frozen MobileNetV2: its weights, and the engines that execute it."""

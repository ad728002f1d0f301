extern "C" __attribute__((used, visibility("default"))) const char lazyneuron_native_build[] = "lazyneuron-native-build:64bde2a38d357054 torch=2.13.0+cpu";

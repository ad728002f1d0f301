extern "C" __attribute__((used, visibility("default"))) const char lazyneuron_native_build[] = "lazyneuron-native-build:377a3dbfee5db5fd torch=2.13.0+cpu";
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

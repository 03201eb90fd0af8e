/* A program that needs the dynamic loader. */
#include <stdio.h>

int main(void) {
    puts("hello");
    return 0;
}

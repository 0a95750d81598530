# Run by cpack between the installation into its staging tree and the making of packages: what Debian wants differently
# from a tree under any prefix.

set(STAGE ${CPACK_TEMPORARY_INSTALL_DIRECTORY})

# manual pages and changelog compressed, without a time stamp
file(GLOB PAGES ${STAGE}/*/usr/share/man/man*/*)
execute_process(COMMAND gzip -9nf ${PAGES} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND date -u -R -d ${CPACK_PARRY_RELEASED} OUTPUT_VARIABLE DATE OUTPUT_STRIP_TRAILING_WHITESPACE
  COMMAND_ERROR_IS_FATAL ANY)
foreach(PART libparry:${CPACK_PARRY_LIBRARY} dev:libparry-dev parry:parry)
  string(REPLACE ":" ";" PART ${PART})
  list(GET PART 0 COMPONENT)
  list(GET PART 1 PACKAGE)
  set(DOC ${STAGE}/${COMPONENT}/usr/share/doc/${PACKAGE})
  file(WRITE ${DOC}/changelog.Debian "parry (${CPACK_PACKAGE_VERSION}-1) unstable; urgency=medium\n\n"
    "  * Version ${CPACK_PACKAGE_VERSION}.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${DATE}\n")
  execute_process(COMMAND gzip -9nf ${DOC}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)
  configure_file(${CPACK_PARRY_LICENSE_NOTE} ${DOC}/copyright COPYONLY)
endforeach()

# cmake strips programs and shared libraries only, and leaves the compiler's comments
set(LIBRARIES ${STAGE}/libparry/usr/${CPACK_PARRY_LIBDIR}/libparry.so.${CPACK_PACKAGE_VERSION})
execute_process(COMMAND strip --strip-debug --enable-deterministic-archives --remove-section=.comment
  ${STAGE}/dev/usr/${CPACK_PARRY_LIBDIR}/libparry.a COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND strip --remove-section=.comment ${LIBRARIES} ${STAGE}/parry/usr/bin/parry
  COMMAND_ERROR_IS_FATAL ANY)
